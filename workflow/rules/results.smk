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
        own=own_benchmarks,
    message:
        "measuring the heads of {wildcards.experiment}"
    shell:
        "rine-cache evaluate {params.experiment:q} --name {wildcards.experiment} --encoder {params.encoder:q} "
        "{params.files} {params.own} --out {output.metrics:q} --log {log:q}"


rule leaderboard:
    input:
        metrics=expand(
            "results/metrics/{experiment}.parquet",
            experiment=[*CONFIG.experiments, "metadata-only"],
        ),
        published=list(CONFIG.published),
        benchmarks=list(CONFIG.benchmarks),
        duplicates="results/audits/all/duplicates.parquet",
    output:
        table="results/leaderboard.parquet",
        csv=report(
            "results/leaderboard.csv",
            caption="../report/leaderboard_table.rst",
            category="Leaderboard",
            labels={"as": "table"},
        ),
        markdown="results/leaderboard.md",
    log:
        "results/logs/leaderboard.log",
    benchmark:
        "results/timings/leaderboard.tsv"
    conda:
        "../../environment.yml"
    params:
        files=result_options,
        own=own_benchmarks,
    message:
        "building the leaderboard"
    shell:
        "rine-cache leaderboard build {params.files} {params.own} --duplicates {input.duplicates:q} "
        "--out {output.table:q} --csv {output.csv:q} --markdown {output.markdown:q} --log {log:q}"


rule curves:
    input:
        heads=heads_of,
        scores=score_files,
        benchmarks=list(CONFIG.benchmarks),
    output:
        curves="results/curves/{experiment}.parquet",
    log:
        "results/logs/curves/{experiment}.log",
    benchmark:
        "results/timings/curves/{experiment}.tsv"
    conda:
        "../../environment.yml"
    params:
        experiment=experiment_json,
        heads="results/heads/{experiment}",
        files=result_options,
        own=own_benchmarks,
    message:
        "reducing the scores of {wildcards.experiment} to curves"
    shell:
        "rine-cache leaderboard curves {params.experiment:q} {params.files} {params.own} --heads {params.heads:q} "
        "--out {output.curves:q} --log {log:q}"


# A rule of its own, and not an output of `leaderboard`: it shows the matrices too, which are made from the leaderboard.
rule page:
    input:
        leaderboard="results/leaderboard.parquet",
        benchmarks=list(CONFIG.benchmarks),
        curves=curves(),
        ablations=ablations(),
        matrices=matrices(),
    output:
        page=report(
            "results/leaderboard.html",
            caption="../report/leaderboard.rst",
            category="Leaderboard",
            labels={"as": "page"},
        ),
    log:
        "results/logs/page.log",
    benchmark:
        "results/timings/page.tsv"
    conda:
        "../../environment.yml"
    params:
        files=result_options,
        own=own_benchmarks,
        extras=page_options,
    message:
        "writing the leaderboard's page"
    shell:
        "rine-cache leaderboard page --leaderboard {input.leaderboard:q} {params.files} {params.own} {params.extras} "
        "--out {output.page:q} --log {log:q}"


rule matrix:
    input:
        leaderboard="results/leaderboard.parquet",
        benchmarks=list(CONFIG.benchmarks),
    output:
        table="results/matrices/{matrix}.parquet",
        markdown="results/matrices/{matrix}.md",
        figures=[
            report(
                "results/matrices/{matrix}.svg",
                caption="../report/matrix.rst",
                category="Matrices",
                labels={"matrix": "{matrix}"},
            ),
            "results/matrices/{matrix}.png",
        ],
    log:
        "results/logs/matrix/{matrix}.log",
    benchmark:
        "results/timings/matrix/{matrix}.tsv"
    conda:
        "../../environment.yml"
    params:
        spec=matrix_json,
        benchmark=matrix_benchmark_json,
        figures=figure_options,
    message:
        "drawing the matrix {wildcards.matrix}"
    shell:
        "rine-cache leaderboard matrix --leaderboard {input.leaderboard:q} --spec {params.spec:q} "
        "--benchmark {params.benchmark:q} --out {output.table:q} --markdown {output.markdown:q} {params.figures} "
        "--log {log:q}"
