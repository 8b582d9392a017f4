"""`pytest --doctest-modules sure_fast` leaves out the modules whose extra is not installed."""

from importlib.util import find_spec

collect_ignore_glob = []
if not find_spec("ignite"):
    collect_ignore_glob.append("sure_fast/integrations/monai.py")
if not find_spec("nnunetv2"):
    collect_ignore_glob += [f"sure_fast/integrations/nnunet/{name}*" for name in ("train", "predictor")]
