// Package rego compiles Rego to Go closures, so that a decision runs without walking a syntax tree.
//
// # How it works
//
// OPA's planner turns the rules that a query reaches into a plan: functions of blocks of statements over numbered local variables
// (package ir of OPA). Plan gets it. Compile turns each statement into a closure and each block into a slice of closures. Eval runs
// them over a frame of locals. Values are OPA's own (ast.Term), so every builtin function of OPA can be called as it is.
//
// A statement is defined or not. If it is not, its block ends, and the statement around the block goes on. So a closure returns how
// its block goes on: next, undef, or how many blocks end (block.go).
//
// The compiler removes work in these ways, none of which changes a value:
//   - inline.go: it takes lookups of base data out of their blocks.
//   - knowledge.go: it follows values that it knows, also into the base data, which never changes. The knowledge holds from a statement to
//     the next one; what a block may have changed is forgotten after it. Stores that nobody reads are dropped.
//   - slots.go: parts of the input with constant names are numbered, so that the caller can give them without building the document.
//   - index.go: it finds the rules that can hold by a value that they compare with constants.
//   - join.go: loops that compare a part of each member look up the members that they need.
//   - walk.go: walk and the loop over its nodes become one loop, which leaves out nodes that do not matter.
//   - natives.go, patterns.go: frequent builtin functions are called without OPA's detours, and with patterns compiled at load.
//   - exit.go: rules that all have the same constant value stop at the first that holds, also inside loops.
//   - A function remembers its last value, which a with statement hides where it replaces something (run.go).
//
// Known values are shared by all goroutines. So a collection is only changed by the function that made it, and only while it makes it.
//
// # What differs from OPA's evaluator
//
// Values do not differ. But OPA's evaluator does not enter a rule whose conditions on the input cannot hold, stops at the first of several
// rules with one constant value, and evaluates only the key of a partial object that is asked for. A program meets the conflicts and
// failed functions that this skips. It also words conflicts more briefly. A caller that gets an error asks OPA's evaluator again.
//
// Some plans have another meaning than the rules. Plan and Compile refuse them, or Compile repairs them: misplanned, innermost, stored
// and put tell why.
//
// # Reading the source
//
// plan.go, program.go and block.go first, then call.go and values.go. profile.go counts and times calls for who asks. The other files compile
// groups of statements.
package rego
