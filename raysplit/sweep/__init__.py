import os

# Lanes are Ray Train V2's, whatever the environment says; Ray reads it when `ray.train` is imported.
os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
