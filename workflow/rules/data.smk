# Images on disk to manifests.


if CONFIG.sample:

    rule sample:
        output:
            provenance=f"{CONFIG.sample.root}/provenance.json",
        log:
            "results/logs/sample.log",
        benchmark:
            "results/timings/sample.tsv"
        conda:
            "../../environment.yml"
        params:
            spec=as_json(CONFIG.sample),
        message:
            "making the sample's images"
        shell:
            "rine-cache sample {params.spec:q} --log {log:q}"


rule manifest:
    input:
        required_by,
    output:
        # Kept while its folder is listed again, and where that is absent: caches outlive images.
        manifest=update("results/manifests/{dataset}.parquet"),
    log:
        "results/logs/manifest/{dataset}.log",
    benchmark:
        "results/timings/manifest/{dataset}.tsv"
    conda:
        "../../environment.yml"
    params:
        root=lookup(dpath="datasets/{dataset}/root", within=SETTINGS),
        options=listing_options,
    message:
        "listing the images of {wildcards.dataset}"
    shell:
        "rine-cache manifest {params.root:q} {params.options} "
        "--out {output.manifest:q} --log {log:q}"
