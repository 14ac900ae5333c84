"""How XLA:CPU calls a kernel: a handler of its foreign function interface (FFI).

The call frame is that of `xla/ffi/api/c_api.h`, version 0.3, as words of 8 bytes; XLA promises
it for a year at least. Rows are shared out among threads of XLA's own pool. The frame and the
context end when the handler returns, so what tasks read is copied to a job on the heap before,
and no task touches them; the last one that ends completes the future that the handler has
returned. Nobody waits: with a pool of one thread, or none, it is only slower.

Sums over rows: the first task adds to the result, each other to an area of its own, and the
last one that ends adds these up in the order of tasks, so bits depend on how many tasks there
are and on nothing else. Of several models each is one task's.

XLA's memory is fresh at every call where it is large: glibc gives it back each time. On Linux
results, and what tasks have for themselves, are asked for in large pages before they are written.
"""

import functools
import pathlib
import re

import jax

VERSION = 0, 3  # of the interface that this is written for
LEAST = 4  # rows of a task

# a job: left to do, function that completes, future, rows, steps, models, tasks, run, scratch of a
# task, sums of a model, merge, where sums go, areas, their size; pointers…
HEADER = 14
HANDLE = "bptt_jax_handle"

LARGE = 1 << 21  # bytes of a large page, a power of 2
MANY = 1 << 20  # bytes of tasks' own, from which on they are in large pages
LARGE_PAGES = """
declare i32 @madvise(ptr, i64, i32)

; large pages for what will be written to: memory that is fresh at a call is then mapped 2 MB at a
; fault and not 4 kB (where the system offers it; if not, nothing changes)
define internal void @large(ptr %p, i64 %bytes) {
  %data = ptrtoint ptr %p to i64
  %end = add i64 %data, %bytes
  %up = add i64 %data, BELOW
  %from = and i64 %up, -LARGE
  %to = and i64 %end, -LARGE
  %length = sub i64 %to, %from
  %some = icmp sgt i64 %length, 0
  br i1 %some, label %ask, label %done
ask:
  %at = inttoptr i64 %from to ptr
  %ignored = call i32 @madvise(ptr %at, i64 %length, i32 14) ; MADV_HUGEPAGE
  br label %done
done:
  ret void
}
"""
NO_LARGE_PAGES = "define internal void @large(ptr %p, i64 %bytes) { ret void }"

TEXT = """
declare ptr @malloc(i64)
declare void @free(ptr)

define internal i64 @word(ptr %p, i64 %i) {
  %q = getelementptr i64, ptr %p, i64 %i
  %x = load i64, ptr %q
  ret i64 %x
}
define internal ptr @link(ptr %p, i64 %i) {
  %q = getelementptr ptr, ptr %p, i64 %i
  %x = load ptr, ptr %q
  ret ptr %x
}
define internal void @put(ptr %p, i64 %i, i64 %x) {
  %q = getelementptr i64, ptr %p, i64 %i
  store i64 %x, ptr %q
  ret void
}
define internal void @tie(ptr %p, i64 %i, ptr %x) {
  %q = getelementptr ptr, ptr %p, i64 %i
  store ptr %x, ptr %q
  ret void
}

declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)

; a task's scratch and, after it, its sums
define internal ptr @area(ptr %job, i64 %index) {
  %areas = call ptr @link(ptr %job, i64 12)
  %size = call i64 @word(ptr %job, i64 13)
  %offset = mul i64 %index, %size
  %at = getelementptr i8, ptr %areas, i64 %offset
  ret ptr %at
}
define internal ptr @sums(ptr %job, i64 %index) {
  %area = call ptr @area(ptr %job, i64 %index)
  %scratch = call i64 @word(ptr %job, i64 8)
  %own = getelementptr i8, ptr %area, i64 %scratch
  ret ptr %own
}

; the first row of a task: [rows * models * index / tasks, …), of whole models where they have sums
define internal i64 @first(ptr %job, i64 %index) {
  %rows = call i64 @word(ptr %job, i64 3)
  %models = call i64 @word(ptr %job, i64 5)
  %tasks = call i64 @word(ptr %job, i64 6)
  %sums = call i64 @word(ptr %job, i64 9)
  %none = icmp eq i64 %sums, 0
  %one = icmp eq i64 %models, 1
  %cut = or i1 %none, %one
  %all = mul i64 %rows, %models
  %n = select i1 %cut, i64 %all, i64 %models
  %a = mul i64 %n, %index
  %at = sdiv i64 %a, %tasks
  %each = select i1 %cut, i64 1, i64 %rows
  %row = mul i64 %at, %each
  ret i64 %row
}

define internal void @part(ptr %job, i64 %index) {
  %rows = call i64 @word(ptr %job, i64 3)
  %steps = call i64 @word(ptr %job, i64 4)
  %models = call i64 @word(ptr %job, i64 5)
  %bytes = call i64 @word(ptr %job, i64 9)
  %result = call ptr @link(ptr %job, i64 11)
  %first = call i64 @first(ptr %job, i64 %index)
  %more = add i64 %index, 1
  %last = call i64 @first(ptr %job, i64 %more)
  %pointers = getelementptr i64, ptr %job, i64 HEADER
  %run = call ptr @link(ptr %job, i64 7)
  %scratch = call ptr @area(ptr %job, i64 %index)
  %own = call ptr @sums(ptr %job, i64 %index)
  %one = icmp eq i64 %models, 1
  %later = icmp ne i64 %index, 0
  %apart = and i1 %one, %later
  %zeros = select i1 %apart, i64 %bytes, i64 0
  call void @llvm.memset.p0.i64(ptr %own, i8 0, i64 %zeros, i1 0)
  br label %head
head:
  %at = phi i64 [ %first, %0 ], [ %next, %body ]
  %go = icmp slt i64 %at, %last
  br i1 %go, label %body, label %done
body:
  %model = sdiv i64 %at, %rows
  %start = mul i64 %model, %rows
  %from = sub i64 %at, %start
  %end = add i64 %start, %rows
  %short = icmp slt i64 %last, %end
  %next = select i1 %short, i64 %last, i64 %end
  %to = sub i64 %next, %start
  %offset = mul i64 %model, %bytes
  %of_model = getelementptr i8, ptr %result, i64 %offset
  %sums = select i1 %apart, ptr %own, ptr %of_model
  call void %run(ptr %pointers, ptr %scratch, ptr %sums, i64 %model, i64 %from, i64 %to,
                 i64 %rows, i64 %steps)
  br label %head
done:
  ret void
}

; what the tasks after the first have summed, added to the result
define internal void @merged(ptr %job) {
  %bytes = call i64 @word(ptr %job, i64 9)
  %models = call i64 @word(ptr %job, i64 5)
  %tasks = call i64 @word(ptr %job, i64 6)
  %merge = call ptr @link(ptr %job, i64 10)
  %result = call ptr @link(ptr %job, i64 11)
  %none = icmp eq i64 %bytes, 0
  %many = icmp ne i64 %models, 1
  %nothing = or i1 %none, %many
  %n = select i1 %nothing, i64 1, i64 %tasks
  br label %head
head:
  %i = phi i64 [ 1, %0 ], [ %next, %body ]
  %go = icmp slt i64 %i, %n
  br i1 %go, label %body, label %done
body:
  %own = call ptr @sums(ptr %job, i64 %i)
  call void %merge(ptr %result, ptr %own, i64 %bytes)
  %next = add i64 %i, 1
  br label %head
done:
  ret void
}

; whoever ends last completes the future
define internal void @finish(ptr %job) {
  %left = atomicrmw sub ptr %job, i64 1 acq_rel
  %mine = icmp eq i64 %left, 1
  br i1 %mine, label %complete, label %done
complete:
  call void @merged(ptr %job)
  %args = alloca [3 x i64]
  %f = call ptr @link(ptr %job, i64 1)
  %future = call ptr @link(ptr %job, i64 2)
  call void @put(ptr %args, i64 0, i64 24)
  call void @put(ptr %args, i64 1, i64 0)
  call void @tie(ptr %args, i64 2, ptr %future)
  call void @free(ptr %job)
  %error = call ptr %f(ptr %args)
  br label %done
done:
  ret void
}

define internal void @task(ptr %record) {
  %job = call ptr @link(ptr %record, i64 0)
  %index = call i64 @word(ptr %record, i64 1)
  call void @part(ptr %job, i64 %index)
  call void @finish(ptr %job)
  ret void
}

; where the numbers of n buffers are
define internal void @gather(ptr %buffers, i64 %n, ptr %to) {
  br label %head
head:
  %i = phi i64 [ 0, %0 ], [ %next, %body ]
  %go = icmp slt i64 %i, %n
  br i1 %go, label %body, label %done
body:
  %buffer = call ptr @link(ptr %buffers, i64 %i)
  %data = call ptr @link(ptr %buffer, i64 3)
  call void @tie(ptr %to, i64 %i, ptr %data)
  %next = add i64 %i, 1
  br label %head
done:
  ret void
}

; bytes of a buffer's numbers; 0 where they are no floats that kernels store
define internal i64 @bytes(ptr %buffer) {
  %at = getelementptr i8, ptr %buffer, i64 16
  %kind = load i32, ptr %at
  %rank = call i64 @word(ptr %buffer, i64 4)
  %dims = call ptr @link(ptr %buffer, i64 5)
  switch i32 %kind, label %other [
    i32 11, label %single
    i32 12, label %double
    i32 16, label %half
  ]
single: ; F32
  br label %head
double: ; F64
  br label %head
half: ; BF16
  br label %head
other:
  ret i64 0
head:
  %i = phi i64 [ 0, %single ], [ 0, %double ], [ 0, %half ], [ %next, %body ]
  %n = phi i64 [ 4, %single ], [ 8, %double ], [ 2, %half ], [ %more, %body ]
  %go = icmp slt i64 %i, %rank
  br i1 %go, label %body, label %done
body:
  %dim = call i64 @word(ptr %dims, i64 %i)
  %more = mul i64 %n, %dim
  %next = add i64 %i, 1
  br label %head
done:
  ret i64 %n
}

; results that lie side by side, as XLA has them in one allocation, share the pages between them
define internal void @enlarge(ptr %buffers, i64 %n) {
  br label %head
head:
  %i = phi i64 [ 0, %0 ], [ %next, %after ]
  %go = icmp slt i64 %i, %n
  br i1 %go, label %body, label %done
body:
  %buffer = call ptr @link(ptr %buffers, i64 %i)
  %data = call ptr @link(ptr %buffer, i64 3)
  %bytes = call i64 @bytes(ptr %buffer)
  %small = icmp slt i64 %bytes, MANY
  br i1 %small, label %after, label %ask
ask:
  %first = ptrtoint ptr %data to i64
  %end = add i64 %first, %bytes
  %last = call i64 @last(ptr %buffers, i64 %n, i64 %end)
  %all = sub i64 %last, %first
  call void @large(ptr %data, i64 %all)
  br label %after
after:
  %next = add i64 %i, 1
  br label %head
done:
  ret void
}

; the end of what begins less than 64 bytes after an end, and of what begins there, and so on
define internal i64 @last(ptr %buffers, i64 %n, i64 %end) {
  %turns = mul i64 %n, %n
  br label %head
head:
  %i = phi i64 [ 0, %0 ], [ %next, %body ]
  %at = phi i64 [ %end, %0 ], [ %then, %body ]
  %go = icmp slt i64 %i, %turns
  br i1 %go, label %body, label %done
body:
  %which = srem i64 %i, %n
  %buffer = call ptr @link(ptr %buffers, i64 %which)
  %first = call i64 @word(ptr %buffer, i64 3)
  %bytes = call i64 @bytes(ptr %buffer)
  %gap = sub i64 %first, %at
  %beside = icmp ult i64 %gap, 64
  %there = add i64 %first, %bytes
  %then = select i1 %beside, i64 %there, i64 %at
  %next = add i64 %i, 1
  br label %head
done:
  ret i64 %at
}

; where areas begin: at a large page where there is room for it, and with nothing else in it
define internal ptr @placed(ptr %p, i64 %bytes, i64 %room) {
  %data = ptrtoint ptr %p to i64
  %up = add i64 %data, BELOW
  %from = and i64 %up, -LARGE
  %none = icmp eq i64 %room, 0
  %first = select i1 %none, i64 %data, i64 %from
  %at = inttoptr i64 %first to ptr
  %all = add i64 %bytes, %room
  %before = sub i64 %first, %data
  %rest = sub i64 %all, %before
  call void @large(ptr %at, i64 %rest)
  ret ptr %at
}

define internal i64 @attribute(ptr %frame, i64 %i) {
  %attributes = call ptr @link(ptr %frame, i64 20)
  %one = call ptr @link(ptr %attributes, i64 %i)
  %value = call ptr @link(ptr %one, i64 1)
  %x = load i64, ptr %value
  ret i64 %x
}

define internal i64 @threads(ptr %frame, ptr %api) {
  %args = alloca [4 x i64]
  %n = alloca i64
  store i64 1, ptr %n
  %context = call ptr @link(ptr %frame, i64 3)
  call void @put(ptr %args, i64 0, i64 32)
  call void @put(ptr %args, i64 1, i64 0)
  call void @tie(ptr %args, i64 2, ptr %context)
  call void @tie(ptr %args, i64 3, ptr %n)
  %f = call ptr @link(ptr %api, i64 18)
  %error = call ptr %f(ptr %args)
  %failed = icmp ne ptr %error, null
  br i1 %failed, label %none, label %some
none:
  call void @forget(ptr %api, ptr %error)
  ret i64 1
some:
  %found = load i64, ptr %n
  ret i64 %found
}

define internal void @forget(ptr %api, ptr %error) {
  %args = alloca [3 x i64]
  call void @put(ptr %args, i64 0, i64 24)
  call void @put(ptr %args, i64 1, i64 0)
  call void @tie(ptr %args, i64 2, ptr %error)
  %f = call ptr @link(ptr %api, i64 8)
  call void %f(ptr %args)
  ret void
}

@message = internal constant [20 x i8] c"bptt_jax: no memory\\00"
define internal ptr @no_memory(ptr %api) {
  %args = alloca [4 x i64]
  call void @put(ptr %args, i64 0, i64 32)
  call void @put(ptr %args, i64 1, i64 0)
  call void @tie(ptr %args, i64 2, ptr @message)
  call void @put(ptr %args, i64 3, i64 8) ; RESOURCE_EXHAUSTED
  %f = call ptr @link(ptr %api, i64 6)
  %error = call ptr %f(ptr %args)
  ret ptr %error
}

define ptr @HANDLE(ptr %frame, ptr %run, ptr %merge, i64 %n_arguments, i64 %n_results,
                   i64 %scratch, i64 %sums) {
  %extension = call ptr @link(ptr %frame, i64 1)
  %asked = icmp ne ptr %extension, null
  br i1 %asked, label %metadata, label %execute
metadata:
  %m = call ptr @link(ptr %extension, i64 3)
  %version = getelementptr i8, ptr %m, i64 24
  store i32 0, ptr %version
  %v1 = getelementptr i32, ptr %version, i64 1
  store i32 NEWEST, ptr %v1
  ret ptr null
execute:
  %api = call ptr @link(ptr %frame, i64 2)
  %models = call i64 @attribute(ptr %frame, i64 0)
  %parallel = call i64 @attribute(ptr %frame, i64 1)
  %rows = call i64 @attribute(ptr %frame, i64 2)
  %steps = call i64 @attribute(ptr %frame, i64 3)
  %all = mul i64 %rows, %models
  %alone = icmp eq i64 %parallel, 0
  br i1 %alone, label %decided, label %ask
ask:
  %pool = call i64 @threads(ptr %frame, ptr %api)
  %summed = icmp ne i64 %sums, 0
  %several = icmp ne i64 %models, 1
  %whole = and i1 %summed, %several
  %of_rows = sdiv i64 %all, LEAST
  %most = select i1 %whole, i64 %models, i64 %of_rows
  %fewer = icmp slt i64 %most, %pool
  %n0 = select i1 %fewer, i64 %most, i64 %pool
  %few = icmp slt i64 %n0, 1
  %n1 = select i1 %few, i64 1, i64 %n0
  br label %decided
decided:
  %tasks = phi i64 [ 1, %execute ], [ %n1, %ask ]
  %operands = add i64 %n_arguments, %n_results
  %words = add i64 %operands, HEADER
  %of_tasks = mul i64 %tasks, 2
  %all_words = add i64 %words, %of_tasks
  %head_bytes = mul i64 %all_words, 8
  %single_model = icmp eq i64 %models, 1
  %own = select i1 %single_model, i64 %sums, i64 0
  %area_size = add i64 %scratch, %own
  %areas_size = mul i64 %tasks, %area_size
  %few_bytes = icmp slt i64 %areas_size, MANY
  %room = select i1 %few_bytes, i64 0, i64 TWICE
  %with_room = add i64 %areas_size, %room
  %bytes = add i64 %head_bytes, %with_room
  %job = call ptr @malloc(i64 %bytes)
  %failed = icmp eq ptr %job, null
  br i1 %failed, label %full, label %begun
full:
  %no_room = call ptr @no_memory(ptr %api)
  ret ptr %no_room
begun:
  call void @put(ptr %job, i64 0, i64 %tasks)
  call void @put(ptr %job, i64 3, i64 %rows)
  call void @put(ptr %job, i64 4, i64 %steps)
  call void @put(ptr %job, i64 5, i64 %models)
  call void @put(ptr %job, i64 6, i64 %tasks)
  call void @tie(ptr %job, i64 7, ptr %run)
  call void @put(ptr %job, i64 8, i64 %scratch)
  call void @put(ptr %job, i64 9, i64 %sums)
  call void @tie(ptr %job, i64 10, ptr %merge)
  %behind = getelementptr i8, ptr %job, i64 %head_bytes
  %areas = call ptr @placed(ptr %behind, i64 %areas_size, i64 %room)
  call void @tie(ptr %job, i64 12, ptr %areas)
  call void @put(ptr %job, i64 13, i64 %area_size)
  %arguments = call ptr @link(ptr %frame, i64 9)
  %results = call ptr @link(ptr %frame, i64 14)
  %place = getelementptr ptr, ptr %job, i64 HEADER
  %place_r = getelementptr ptr, ptr %place, i64 %n_arguments
  call void @gather(ptr %arguments, i64 %n_arguments, ptr %place)
  call void @gather(ptr %results, i64 %n_results, ptr %place_r)
  call void @enlarge(ptr %results, i64 %n_results)
  %final = sub i64 %n_results, 1
  %sums_at = call ptr @link(ptr %place_r, i64 %final)
  call void @tie(ptr %job, i64 11, ptr %sums_at)
  %sums_bytes = mul i64 %sums, %models
  call void @llvm.memset.p0.i64(ptr %sums_at, i8 0, i64 %sums_bytes, i1 0)
  %single = icmp eq i64 %tasks, 1
  br i1 %single, label %here, label %shared
here:
  call void @part(ptr %job, i64 0)
  call void @free(ptr %job)
  ret ptr null
shared:
  %create = alloca [3 x i64]
  call void @put(ptr %create, i64 0, i64 24)
  call void @put(ptr %create, i64 1, i64 0)
  call void @put(ptr %create, i64 2, i64 0)
  %fc = call ptr @link(ptr %api, i64 19)
  %ec = call ptr %fc(ptr %create)
  %future = call ptr @link(ptr %create, i64 2)
  call void @tie(ptr %frame, i64 21, ptr %future)
  call void @tie(ptr %job, i64 2, ptr %future)
  %complete = call ptr @link(ptr %api, i64 20)
  call void @tie(ptr %job, i64 1, ptr %complete)
  %context = call ptr @link(ptr %frame, i64 3)
  %schedule = call ptr @link(ptr %api, i64 17)
  %args = alloca [5 x i64]
  br label %each
each:
  %t = phi i64 [ 1, %shared ], [ %t1, %sent ]
  %ta = icmp slt i64 %t, %tasks
  br i1 %ta, label %send, label %mine
send:
  %w = mul i64 %t, 2
  %w1 = add i64 %w, %words
  %record = getelementptr i64, ptr %job, i64 %w1
  call void @tie(ptr %record, i64 0, ptr %job)
  call void @put(ptr %record, i64 1, i64 %t)
  call void @put(ptr %args, i64 0, i64 40)
  call void @put(ptr %args, i64 1, i64 0)
  call void @tie(ptr %args, i64 2, ptr %context)
  call void @tie(ptr %args, i64 3, ptr @task)
  call void @tie(ptr %args, i64 4, ptr %record)
  %es = call ptr %schedule(ptr %args)
  %refused = icmp ne ptr %es, null
  br i1 %refused, label %inline, label %sent
inline:
  call void @forget(ptr %api, ptr %es)
  call void @task(ptr %record)
  br label %sent
sent:
  %t1 = add i64 %t, 1
  br label %each
mine:
  call void @part(ptr %job, i64 0)
  call void @finish(ptr %job)
  ret ptr null
}
"""


@functools.cache
def version() -> tuple[int, int]:
    """Of the interface: ours, or that of this jaxlib where it is older."""
    header = pathlib.Path(jax.ffi.include_dir(), "xla/ffi/api/c_api.h").read_text()
    found = [
        re.search(rf"XLA_FFI_API_{part} (\d+)", header) for part in ("MAJOR", "MINOR")
    ]
    major, minor = (int(m.group(1)) for m in found if m)
    return min(VERSION, (major, minor))


ENTRY = """
declare ptr @HANDLE(ptr, ptr, ptr, i64, i64, i64, i64)
define internal void @merge(ptr noalias %to, ptr noalias %from, i64 %bytes) {
  br label %head
head:
  %i = phi i64 [ 0, %0 ], [ %next, %body ]
  %go = icmp slt i64 %i, %bytes
  br i1 %go, label %body, label %done
body:
  %a = getelementptr i8, ptr %to, i64 %i
  %c = getelementptr i8, ptr %from, i64 %i
  %x = load <LANES x REAL>, ptr %a, align SIZE
  %y = load <LANES x REAL>, ptr %c, align SIZE
  %z = fadd <LANES x REAL> %x, %y
  store <LANES x REAL> %z, ptr %a, align SIZE
  %next = add i64 %i, VECTOR
  br label %head
done:
  ret void
}
define ptr @NAME(ptr %frame) {
  %error = call ptr @HANDLE(ptr %frame, ptr @run, ptr @merge, i64 ARGUMENTS, i64 RESULTS,
                            i64 SCRATCH, i64 SUMS)
  ret ptr %error
}
"""


def entry(
    name: str,
    arguments: int,
    results: int,
    scratch: int,
    sums: int,
    lanes: int,
    size: int,
) -> str:
    """The text of a kernel's entry, for a module that defines `run`.

    Args:
      arguments, results: how many; the last result is of sums, where there are any.
      scratch: bytes of a task.
      sums: bytes of a model, of whole vectors.
      lanes, size: of a vector of sums, and bytes of a number.
    """
    values = dict(
        ARGUMENTS=arguments, RESULTS=results, SCRATCH=scratch, SUMS=sums, HANDLE=HANDLE,
        NAME=name, LANES=lanes, REAL={4: "float", 8: "double"}[size], SIZE=size,
        VECTOR=lanes * size,
    )  # fmt: skip
    return _filled(ENTRY, values)


def handle(triple: str) -> str:
    """The text of what all entries call, on a system that LLVM's triple names."""
    values = dict(
        HEADER=HEADER, NEWEST=version()[1], LEAST=LEAST, HANDLE=HANDLE,
        LARGE=LARGE, BELOW=LARGE - 1, TWICE=2 * LARGE, MANY=MANY,
    )  # fmt: skip
    return _filled(
        TEXT + (LARGE_PAGES if "linux" in triple else NO_LARGE_PAGES), values
    )


def _filled(text: str, values: dict) -> str:
    for word, value in values.items():
        text = text.replace(word, str(value))
    return text
