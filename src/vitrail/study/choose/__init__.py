"""``vitrail.choose``: the right backbone for these pictures, here, in minutes.

pool -> limits of this machine -> probes of frozen features, in rounds -> race -> answer
"""
