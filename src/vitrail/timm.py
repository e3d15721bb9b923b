"""The adapter to timm: importing this registers every model as ``vitrail_<name>``.

::

    import timm, vitrail.timm

    timm.create_model("vitrail_coat_lite_tiny", num_classes=10, features_only=True)

Nothing else in Vitrail touches timm's registry. timm's own scripts import no plug-ins; two lines
that import this module and then run the script do.
"""

from vitrail.hub.timm_adapter import PREFIX, register

__all__ = ["PREFIX", "register"]

register()
