# What files say without a pixel being understood: audits, duplicates across data sets, the metadata-only baseline.


rule audit:
    input:
        features=audited_features,
        manifest="results/manifests/{dataset}.parquet",
    output:
        audit="results/audits/{dataset}.parquet",
        markdown="results/audits/{dataset}.md",
    log:
        "results/logs/audit/{dataset}.log",
    benchmark:
        "results/timings/audit/{dataset}.tsv"
    wildcard_constraints:
        dataset=one_of(CACHES),
    conda:
        "../../environment.yml"
    message:
        "auditing {wildcards.dataset}"
    shell:
        "rine-cache dataset audit {input.features:q} {input.manifest:q} --dataset {wildcards.dataset} "
        "--out {output.audit:q} --markdown {output.markdown:q} --log {log:q}"


rule duplicates:
    input:
        audits=expand("results/audits/{dataset}.parquet", dataset=sorted(CACHES)),
        benchmarks=list(CONFIG.benchmarks),
    output:
        table="results/audits/all/duplicates.parquet",
        markdown="results/audits/all/duplicates.md",
    log:
        "results/logs/duplicates.log",
    benchmark:
        "results/timings/duplicates.tsv"
    conda:
        "../../environment.yml"
    params:
        files=result_options,
        own=own_benchmarks,
        training_sets=audited_training_sets,
    message:
        "looking for images that stand twice"
    shell:
        "rine-cache dataset duplicates {input.audits:q} {params.training_sets} {params.files} {params.own} "
        "--out {output.table:q} --markdown {output.markdown:q} --log {log:q}"


rule baseline:
    input:
        audits=expand("results/audits/{dataset}.parquet", dataset=sorted(CACHES)),
        benchmarks=list(CONFIG.benchmarks),
    output:
        metrics="results/metrics/metadata-only.parquet",
    log:
        "results/logs/baseline.log",
    benchmark:
        "results/timings/baseline.tsv"
    conda:
        "../../environment.yml"
    params:
        files=result_options,
        own=own_benchmarks,
    message:
        "measuring what a classifier without pixels solves"
    shell:
        "rine-cache dataset baseline {input.audits:q} {params.files} {params.own} --out {output.metrics:q} --log {log:q}"
