import pathlib
DIRECTORY = "tests/fixtures/bottega-tiny"
def ready(): return pathlib.Path(DIRECTORY, "model.safetensors.index.json").exists()
