"""The losses in other people's training jobs; each module needs its framework."""
