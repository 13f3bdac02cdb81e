"""Training data from images, on any number of machines (paper, sections 2.3 and 3.1, Figure 4).

    list ▶ read ▶ caption ▶ entities ▶ masks ▶ cut out ▶ shard

A step is a small class that makes better records of records and knows nothing of the engine. What
one list entry after another names is bundled into shards beforehand, and each shard becomes
one shard: what is in a shard depends on neither the number of workers nor their speed.
"""
