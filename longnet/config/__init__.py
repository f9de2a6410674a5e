"""What a run is made of: the model, its data, and how it is trained, as frozen dataclasses.

``Config`` is the model's part and stands alone; ``RunConfig`` holds all three parts. Each reads
and writes JSON and TOML, and refuses keys, types and values it does not know.
"""

from longnet.config.model import ModelConfig
from longnet.config.run import DataConfig, RunConfig, TrainConfig

Config = ModelConfig

__all__ = ["Config", "DataConfig", "ModelConfig", "RunConfig", "TrainConfig"]
