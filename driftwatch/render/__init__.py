"""Rendering: from a commit's files to manifests, by kustomize, Helm, SOPS decryption and variable substitution.

A tool's output is written as a tree into the source's mirror. A rendered snapshot is therefore as complete on disk as
a plain one, and the same code reads it. Secret results (decrypted documents, substituted variables) are computed in
memory each time and never written to disk.
"""
