# Manifests to sealed caches: the only step that runs the encoder. One job makes all the caches of a data set that are
# asked for together, from one reading of its files: see rine_cache/readings.py.


# What it declares is a mark: Snakemake deletes what it declares before a job and after a failed one, and neither shards,
# whose rows are copied where a data set has grown, nor .part files may be lost.
# exec, $PPID: Snakemake itself is the command's parent, which stops when that has died.
rule extract:
    input:
        manifest="results/manifests/{dataset}.parquet",
    output:
        done=touch(
            "results/features/readings/{dataset}/{reading}.{shard}-of-{shards}.done"
        ),
    log:
        "results/logs/extract/{dataset}/{reading}.{shard}-of-{shards}.log",
    benchmark:
        "results/timings/extract/{dataset}/{reading}.{shard}-of-{shards}.tsv"
    wildcard_constraints:
        reading=r"\d+",
        shard=r"\d+",
        shards=r"\d+",
    conda:
        "../../environment.yml"
    # On a CPU the encoder takes every core there is; beside a GPU a few decode, and jobs run side by side.
    threads: 8 if CONFIG.gpu else (workflow.cores or 8)
    resources:
        gpu=int(CONFIG.gpu),
    params:
        caches=cache_options,
        views=named_views,
        device=CONFIG.device,
    message:
        "encoding {wildcards.dataset} through {params.views}, shard {wildcards.shard} of {wildcards.shards}"
    shell:
        "exec rine-cache extract {input.manifest:q} {params.caches} --shard {wildcards.shard}/{wildcards.shards} "
        "--device {params.device} --workers {threads} --parent $PPID --log {log:q}"


# Where shards were deleted by hand the marks are wrong, and go, so that the next run makes the shards again.
rule join:
    input:
        done=extracted,
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
        shards=shards_of,
    message:
        "joining {wildcards.dataset} through {wildcards.view} with {wildcards.encoder} ({wildcards.tap})"
    shell:
        "rine-cache join {output.features:q} --shards {params.shards} --log {log:q} "
        "|| {{ rm -f {input.done:q}; exit 1; }}"
