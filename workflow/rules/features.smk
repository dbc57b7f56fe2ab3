# Manifests to sealed caches: the only step that runs the encoder.


# update(): a cache that is there stays until the new one is sealed. The .part beside it is not declared, so that it
# survives a failed job. exec, $PPID: Snakemake itself is the command's parent, which stops when that has died.
rule extract:
    input:
        manifest="results/manifests/{dataset}.parquet",
        checkpoint=checkpoint_of,
    output:
        features=update("results/features/{encoder}/{tap}/{view}/{dataset}.h5"),
    log:
        "results/logs/extract/{encoder}/{tap}/{view}/{dataset}.log",
    benchmark:
        "results/timings/extract/{encoder}/{tap}/{view}/{dataset}.tsv"
    conda:
        "../../environment.yml"
    # On a CPU the encoder takes every core there is; beside a GPU a few decode, and jobs run side by side.
    threads: 8 if CONFIG.gpu else (workflow.cores or 8)
    resources:
        gpu=int(CONFIG.gpu),
    params:
        architecture=lookup(dpath="encoders/{encoder}/architecture", within=SETTINGS),
        weights=lookup(dpath="encoders/{encoder}/weights", within=SETTINGS),
        precision=lookup(dpath="encoders/{encoder}/precision", within=SETTINGS),
        batch_size=lookup(dpath="encoders/{encoder}/batch_size", within=SETTINGS),
        view=view_json,
        schema=CACHE_SCHEMA_VERSION,
        device=CONFIG.device,
    message:
        "encoding {wildcards.dataset} through {wildcards.view} with {wildcards.encoder} ({wildcards.tap})"
    shell:
        "exec rine-cache extract {input.manifest:q} --out {output.features:q} --architecture {params.architecture:q} "
        "--weights {params.weights:q} --precision {params.precision} --batch-size {params.batch_size} "
        "--tap {wildcards.tap} --view {params.view:q} --device {params.device} --workers {threads} "
        "--parent $PPID --log {log:q}"
