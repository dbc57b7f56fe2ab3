# The pipeline's table of contents: what is built, and where each stage is described.
from snakemake.utils import min_version

min_version("9.19")


# --configfile merges into a configfile given here, so that the sample would run inside every other job.
if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/audits.smk"
include: "workflow/rules/heads.smk"
include: "workflow/rules/results.smk"
include: "workflow/rules/ablations.smk"


onstart:
    save_readings()


rule all:
    default_target: True
    input:
        "results/leaderboard.parquet",
        "results/leaderboard.html",
        matrices(),
        ablations(),
