# Scores to metrics, metrics and published numbers to the leaderboard.


rule evaluate:
    input:
        scores=score_files,
        benchmarks=list(CONFIG.benchmarks),
    output:
        metrics="results/metrics/{experiment}.parquet",
    log:
        "results/logs/evaluate/{experiment}.log",
    benchmark:
        "results/timings/evaluate/{experiment}.tsv"
    conda:
        "../../environment.yml"
    params:
        experiment=experiment_json,
        encoder=encoder_json,
        files=result_options,
    message:
        "measuring the heads of {wildcards.experiment}"
    shell:
        "rine-cache evaluate {params.experiment:q} --name {wildcards.experiment} --encoder {params.encoder:q} "
        "{params.files} --out {output.metrics:q} --log {log:q}"


rule leaderboard:
    input:
        metrics=expand(
            "results/metrics/{experiment}.parquet", experiment=CONFIG.experiments
        ),
        published=list(CONFIG.published),
        benchmarks=list(CONFIG.benchmarks),
    output:
        table="results/leaderboard.parquet",
        markdown="results/leaderboard.md",
    log:
        "results/logs/leaderboard.log",
    benchmark:
        "results/timings/leaderboard.tsv"
    conda:
        "../../environment.yml"
    params:
        files=result_options,
    message:
        "building the leaderboard"
    shell:
        "rine-cache leaderboard build {params.files} --out {output.table:q} --markdown {output.markdown:q} "
        "--log {log:q}"
