# Manifests to sealed caches: the only step that runs the encoder.


# One pass over a data set's files, or over a shard of them, makes all its caches; those that are sealed and up to date
# are left as they are. What it declares is a mark: Snakemake deletes what it declares before a job and after a failed
# one, and neither caches, whose rows are copied where a data set has grown, nor .part files may be lost.
# exec, $PPID: Snakemake itself is the command's parent, which stops when that has died.
rule extract:
    input:
        manifest="results/manifests/{dataset}.parquet",
        checkpoints=checkpoints_of,
    output:
        done=touch("results/features/{dataset}.{shard}-of-{shards}.done"),
    log:
        "results/logs/extract/{dataset}.{shard}-of-{shards}.log",
    benchmark:
        "results/timings/extract/{dataset}.{shard}-of-{shards}.tsv"
    wildcard_constraints:
        dataset=one_of(NEEDED),
        shard=r"\d+",
        shards=r"\d+",
    conda:
        "../../environment.yml"
    # On a CPU the encoder takes every core there is; beside a GPU a few decode, and jobs run side by side.
    threads: 8 if CONFIG.gpu else (workflow.cores or 8)
    resources:
        gpu=int(CONFIG.gpu),
    params:
        caches=extraction_options,
        schema=CACHE_SCHEMA_VERSION,
        device=CONFIG.device,
    message:
        "encoding {wildcards.dataset}, shard {wildcards.shard} of {wildcards.shards}"
    shell:
        "exec rine-cache extract {input.manifest:q} {params.caches} --shard {wildcards.shard}/{wildcards.shards} "
        "--device {params.device} --workers {threads} --parent $PPID --log {log:q}"


# ancient(): another cache of the same pass changes nothing here; a new manifest does. Where shards were deleted by hand
# the marks are wrong, and go, so that the next run makes the shards again.
rule join:
    input:
        manifest="results/manifests/{dataset}.parquet",
        done=ancient(extracted),
    output:
        features="results/features/{encoder}/{tap}/{view}/{dataset}.h5",
    log:
        "results/logs/join/{encoder}/{tap}/{view}/{dataset}.log",
    benchmark:
        "results/timings/join/{encoder}/{tap}/{view}/{dataset}.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    params:
        made_with=encoder_and_view_json,
        schema=CACHE_SCHEMA_VERSION,
        shards=shards_of,
    message:
        "joining {output.features}"
    shell:
        "rine-cache join {output.features:q} --shards {params.shards} --log {log:q} "
        "|| {{ rm -f {input.done:q}; exit 1; }}"
