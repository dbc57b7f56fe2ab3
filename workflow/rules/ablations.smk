# One method on many subsets of its blocks. Its heads are scored by `score`, as those of an experiment are, and their
# folder is not declared either.


rule ablate:
    input:
        train=train_files,
        validation=validation_files,
    output:
        index="results/heads/{ablation}/heads.json",
        experiment="results/heads/{ablation}/experiment.json",
        subsets="results/heads/{ablation}/subsets.parquet",
    log:
        "results/logs/ablate/{ablation}.log",
    benchmark:
        "results/timings/ablate/{ablation}.tsv"
    conda:
        "../../environment.yml"
    threads: 8 if CONFIG.gpu else (workflow.cores or 8)
    resources:
        gpu=int(CONFIG.gpu),
    params:
        experiment=ablated_experiment_json,
        method=ablated_method,
        subsets=subset_options,
        training_set=training_set_json,
        files=train_options,
        heads="results/heads/{ablation}",
        device=CONFIG.device,
    message:
        "training the heads of ablation {wildcards.ablation}"
    shell:
        "rine-cache ablate train {params.experiment:q} --method {params.method:q} {params.subsets} {params.files} "
        "--training-set {params.training_set:q} --out {params.heads:q} --device {params.device} --log {log:q}"


rule evaluate_ablation:
    input:
        experiment="results/heads/{ablation}/experiment.json",
        scores=ablation_scores,
    output:
        metrics="results/metrics/{ablation}.parquet",
    log:
        "results/logs/evaluate/{ablation}.log",
    benchmark:
        "results/timings/evaluate/{ablation}.tsv"
    conda:
        "../../environment.yml"
    params:
        encoder=encoder_json,
        benchmark=ablation_benchmark_json,
        files=result_options,
    message:
        "measuring the heads of ablation {wildcards.ablation}"
    shell:
        "rine-cache evaluate {input.experiment:q} --name {wildcards.ablation} --encoder {params.encoder:q} "
        "--benchmark {params.benchmark:q} {params.files} --out {output.metrics:q} --log {log:q}"


rule draw_ablation:
    input:
        subsets="results/heads/{ablation}/subsets.parquet",
        metrics="results/metrics/{ablation}.parquet",
    output:
        table="results/ablations/{ablation}.parquet",
        markdown="results/ablations/{ablation}.md",
        figures=[
            report(
                "results/ablations/{ablation}.svg",
                caption="../report/ablation.rst",
                category="Ablations",
                labels={"ablation": "{ablation}"},
            ),
            "results/ablations/{ablation}.png",
        ],
    log:
        "results/logs/draw/{ablation}.log",
    benchmark:
        "results/timings/draw/{ablation}.tsv"
    conda:
        "../../environment.yml"
    params:
        spec=ablation_json,
        heads=drawn_heads,
        benchmark=ablation_benchmark_json,
        figures=figure_options,
    message:
        "drawing ablation {wildcards.ablation}"
    shell:
        "rine-cache ablate draw {params.spec:q} --heads {params.heads:q} --metrics {input.metrics:q} "
        "--benchmark {params.benchmark:q} --out {output.table:q} --markdown {output.markdown:q} {params.figures} "
        "--log {log:q}"
