import subprocess
import sys

SCRIPT = """
import ctypes, sys, threading
from service.models.watching import share_memory

if sys.argv[1] == "shared":
    share_memory()
held = threading.Barrier(9)

def hold():
    own = [bytearray(2000) for _ in range(100)]  # larger than what Python allocates itself
    held.wait()
    held.wait()

threads = [threading.Thread(target=hold) for _ in range(8)]
for thread in threads:
    thread.start()
held.wait()
library = ctypes.CDLL(None)
library.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(library.fopen(sys.argv[2].encode(), b"w"))
library.malloc_info(0, file)
library.fclose(file)
held.wait()
"""


def count_arenas(tmp_path, threads):
    file = tmp_path / f"{threads}.xml"
    subprocess.run([sys.executable, "-c", SCRIPT, threads, file], check=True, env={})
    return file.read_text().count("<heap nr=")


def test_threads_share_memory(tmp_path):
    """Eight threads that allocate at once use two arenas of glibc, and more without the limit."""
    assert count_arenas(tmp_path, "shared") <= 2 < count_arenas(tmp_path, "apart")
