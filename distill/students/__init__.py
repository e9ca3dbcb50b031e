"""Making a student: pruning, importance, vocabulary, LoRA, and the names of the runs that train one."""
