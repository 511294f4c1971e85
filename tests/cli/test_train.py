"""`kzoo train`: options and folders that are refused."""


def test_options_that_the_network_does_not_have(tmp_path, kzoo_command):
    for option, reason in (
        ("epochs=3", "epochs is not one of them: use --epochs"),
        ("num_classes=5", "Unknown option of mnist_mlp 'num_classes'"),
        ("droput=0.1", "Did you mean 'dropout'"),
        ("dropout=high", "mnist_mlp can't be built"),
    ):
        code, _, err = kzoo_command("train", "mnist_mlp", "--set", option, "--out", tmp_path / "r")
        assert code == 1 and reason in err and "Traceback" not in err and not (tmp_path / "r").exists(), err


def test_nothing_is_overwritten(trained, tmp_path, kzoo_command):
    code, _, err = kzoo_command("train", "mnist_mlp", "--out", trained)
    assert code == 1 and "holds a run already: add --resume" in err
    (tmp_path / "mine.txt").write_text("mine")
    code, _, err = kzoo_command("train", "mnist_mlp", "--out", tmp_path)
    assert code == 1 and "exists and is not a kzoo run" in err
    code, _, err = kzoo_command("train", "--resume", "--out", tmp_path)
    assert code == 1 and "is not a kzoo run: it has no config.json" in err
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "config.json").write_text('{"style": "strokes.png", "steps": 1000, "seed": 0}')
    code, _, err = kzoo_command("train", "--resume", "--out", tmp_path)
    assert code == 1 and "is not a kzoo train run" in err
