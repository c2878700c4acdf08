"""Batch explanation of whole tables: files in, a folder of parquet files out, in chunks that any engine computes.

sources    files -> frames, a bounded number of rows at a time
rows       frames -> numbers, and the reasons for rejected rows
chunks     rows -> numbered chunks of windows
parts      a chunk, explained -> the bytes of one parquet file
folder     the output folder: manifest, finished parts, rejected rows
threads    the thread engine: chunks in the threads of this process
cluster    the Ray engine: chunks through Ray Data
run        a whole run, resumed from the finished parts
"""
