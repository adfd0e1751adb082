#!/usr/bin/env python3
"""Writes runtime-v1.proto from the wire schema table (tab separated rows of
rpc, message, field, enum, value and reserved). Usage:
generate.py < runtime-v1.tsv > runtime-v1.proto"""
import sys

rows = [line.rstrip("\n").split("\t") for line in sys.stdin if not line.startswith("#")]
services, messages, enums = {}, {}, {}
order = []
for row in rows:
    row += [""] * (6 - len(row))
    kind = row[0]
    if kind == "rpc":
        services.setdefault(row[1], []).append(row[2:6])
    elif kind == "message":
        messages[row[1]] = []
        order.append(row[1])
    elif kind == "field":
        messages[row[1]].append(row[2:6])
    elif kind == "reserved":
        messages[row[1]].append(("", "reserved " + row[2], "", ""))
    elif kind == "enum":
        enums[row[1]] = []
        if "." not in row[1]:
            order.append(row[1])
    elif kind == "value":
        enums[row[1]].append((row[2], row[4]))


def print_enum(name, indent):
    print(f"{indent}enum {name.split('.')[-1]} {{")
    for number, value in enums[name]:
        print(f"{indent}  {value} = {number};")
    print(f"{indent}}}")


print("// Kubernetes container runtime interface, runtime.v1: the wire schema.")
print("// Written by generate.py; do not edit.")
print('syntax = "proto3";\n\npackage runtime.v1;')
for service, calls in services.items():
    print(f"\nservice {service} {{")
    for name, request, response, mode in calls:
        stream = "stream " if "server stream" in mode else ""
        print(f"  rpc {name}({request}) returns ({stream}{response});")
    print("}")
for name in order:
    print()
    if name in enums:
        print_enum(name, "")
        continue
    print(f"message {name} {{")
    for nested in enums:
        if nested.startswith(name + "."):
            print_enum(nested, "  ")
    for number, kind, field, note in messages[name]:
        if kind.startswith("reserved"):
            print(f"  {kind};")
            continue
        # debug_redact is an option of newer protoc only and does not change
        # the wire; deprecated would only warn in our own code.
        kind = kind.replace(",", ", ")
        print(f"  {kind} {field} = {number};")
    print("}")
