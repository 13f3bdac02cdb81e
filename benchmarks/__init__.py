"""What the container costs, beside what any Stable Diffusion v1.5 system costs on this machine.

``python -m benchmarks`` measures and writes one table, with JSON beside it. Every figure is a
ratio of two things measured in turns in one run: speeds of two runs say more about the machine
and its neighbours than about the code. ``README.md`` in this folder says how it is done.
"""
