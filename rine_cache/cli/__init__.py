"""The command `rine-cache`. Command modules import torch, h5py and the like only inside the command that runs."""
