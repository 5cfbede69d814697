"""gdb: `bottega-tasks` prints where every task of a Loop is suspended.

A suspended coroutine has no stack; its frame knows where it goes on. g++ stores the resume function's
address first in the frame, the awaiting frame in the promise (core/base/task.h), so from each root
the loop knows, and each waiter, the chain of callers can be printed.

Use:  (gdb) source tools/gdb/coroutines.py
      (gdb) bottega-tasks loop_     an expression of type bottega::Loop or a pointer to one
"""
import gdb


def symbol_at(address):
    block = gdb.block_for_pc(address)
    while block is not None and block.function is None:
        block = block.superblock
    where = gdb.find_pc_line(address)
    name = block.function.name if block is not None else hex(address)
    return f"{name} at {where.symtab}:{where.line}" if where.symtab else name


class Tasks(gdb.Command):
    def __init__(self):
        super().__init__("bottega-tasks", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        loop = gdb.parse_and_eval(argument or "loop_")
        while loop.type.strip_typedefs().code in (gdb.TYPE_CODE_PTR, gdb.TYPE_CODE_REF):
            loop = loop.referenced_value()
        # unordered_map<void*, Root>: walk libstdc++'s singly linked list of nodes.
        node = loop["roots_"]["_M_h"]["_M_before_begin"]["_M_nxt"]
        pointer = gdb.lookup_type("void").pointer()
        count = 0
        while int(node) != 0:
            frame = (node + 1).cast(pointer.pointer()).dereference()
            resume = int(frame.cast(pointer.pointer()).dereference())
            print(f"task {frame}: {symbol_at(resume)}")
            node = node["_M_nxt"]
            count += 1
        print(f"{count} tasks")


Tasks()
