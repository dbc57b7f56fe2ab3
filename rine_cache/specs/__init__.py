"""What a user may ask for: typed, validated descriptions of encoders, views, data, heads and benchmarks.

Nothing here reads an image, a cache or a weight; every other module takes these as input.
"""
