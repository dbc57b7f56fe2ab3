# Caches to trained heads, and heads to scores. No image is read from here on.


# What it declares is the index of the heads, and not their folder: Snakemake deletes what it declares before a job and
# after a failed one, and heads that are finished are not to be trained again.
rule train:
    input:
        train=train_files,
        validation=validation_files,
    output:
        index="results/heads/{experiment}/heads.json",
    log:
        "results/logs/train/{experiment}.log",
    benchmark:
        "results/timings/train/{experiment}.tsv"
    wildcard_constraints:
        experiment=one_of(set(CONFIG.experiments) - set(OFFICIAL)),
    conda:
        "../../environment.yml"
    threads: 8 if CONFIG.gpu else (workflow.cores or 8)
    resources:
        gpu=int(CONFIG.gpu),
    params:
        experiment=experiment_json,
        training_set=training_set_json,
        files=train_options,
        heads="results/heads/{experiment}",
        device=CONFIG.device,
    message:
        "training the heads of {wildcards.experiment}"
    shell:
        "rine-cache train {params.experiment:q} {params.files} --training-set {params.training_set:q} "
        "--out {params.heads:q} --device {params.device} --log {log:q}"


rule import_heads:
    input:
        official_files,
    output:
        heads=directory("results/heads/{experiment}"),
    log:
        "results/logs/import/{experiment}.log",
    benchmark:
        "results/timings/import/{experiment}.tsv"
    wildcard_constraints:
        experiment=one_of(OFFICIAL),
    conda:
        "../../environment.yml"
    params:
        commands=import_commands,
    message:
        "importing the heads of {wildcards.experiment}"
    shell:
        "{params.commands}"


rule score:
    input:
        heads=heads_of,
        features=scored_features,
        manifest="results/manifests/{dataset}.parquet",
    output:
        scores="results/scores/{experiment}/{view}/{dataset}.parquet",
    log:
        "results/logs/score/{experiment}/{view}/{dataset}.log",
    benchmark:
        "results/timings/score/{experiment}/{view}/{dataset}.tsv"
    wildcard_constraints:
        experiment=one_of([*CONFIG.experiments, *CONFIG.ablations]),
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        gpu=int(CONFIG.gpu),
    params:
        heads="results/heads/{experiment}",
        device=CONFIG.device,
    message:
        "scoring {wildcards.dataset} through {wildcards.view} with the heads of {wildcards.experiment}"
    shell:
        "rine-cache score --heads {params.heads:q} --features {input.features:q} --manifest {input.manifest:q} "
        "--dataset {wildcards.dataset} --view {wildcards.view} --out {output.scores:q} --device {params.device} "
        "--log {log:q}"
