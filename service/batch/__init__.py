"""Whole tables: files in, a folder of parquet files out, in chunks that every engine computes alike.

sources    files -> frames, a bounded number of rows at a time
rows       frames -> numbers, and what is wrong with the rows that have none
chunks     rows -> numbered chunks of windows
parts      a chunk, explained -> the bytes of one parquet file
folder     the parts that exist and those that are missing
threads    chunks through the threads of this process
cluster    chunks through Ray Data
run        all of it
"""
