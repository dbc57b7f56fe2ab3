"""The sample benchmark, made on this machine from photographs that installed packages carry.

It shows the method at work where no data set can be fetched. It is not a result: four toy generators, a
dozen photographs.
"""
