"""The fixture of the licensed datasets as `sparc prepare scannet25k` writes it."""

from typer.testing import CliRunner

from sparc_core.scripts.main import app


def sparc(*arguments):
    """`sparc` with these arguments, in this process; click's result."""
    return CliRunner().invoke(app, [str(a) for a in arguments])


def prepared(tree, out):
    """The tree of `scannet_fixture.write_tree` prepared in the folder `out`, which is returned."""
    places = ("--frames", tree / "frames", "--scan2cad", tree / "scan2cad", "--shapenet", tree / "shapenet")
    result = sparc("prepare", "scannet25k", *places, "--out", out, "--jobs", 1)
    assert result.exit_code == 0, result.output
    return out
