"""Training of annotators, and annotating with them. Nothing below the command line imports it.

    from neuralannot.train.annotate import annotate
    from neuralannot.train.config import preset
    from neuralannot.train.fit import fit

    config = preset("human36m-smpl", data=["human36m"], images=["human36m/images"])
    checkpoint = fit(config, "runs/human36m").checkpoint
    annotate(checkpoint, "annotations")

`data` reads data sets, `check` looks at them, `evaluation` measures annotations, `whole_body` merges them.
"""
