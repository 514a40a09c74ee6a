"""From the files of a commit to its manifests: kustomize, Helm, decryption, variables.

What a tool renders is written as a tree into the source's own mirror, so that a rendered snapshot is as complete on
disk, and read by the same code, as a plain one. What is secret (decrypted documents, variables) is made of it in
memory each time, and never written.
"""
