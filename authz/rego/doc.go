// Package rego compiles Rego to Go closures, so that a decision runs without walking a syntax tree.
//
// # How it works
//
// OPA's planner turns the rules that a query reaches into a plan (package ir of OPA). A plan has a function for all rules of one name.
// A function has blocks, a block has statements, and some statements have blocks inside them. Statements read and write numbered locals.
// Plan gets the plan from OPA. Compile makes a program of it: each statement becomes a closure, and each block a slice of closures.
// Program.Eval runs them over a frame, which holds the locals of one call. Values are OPA's own (ast.Term), nil for undefined, so all
// of OPA's builtin functions can be called as they are.
//
// A statement is defined or undefined. An undefined one ends its block, and the statement around that block goes on. So a closure
// returns how its block goes on: next, undef, or how many blocks end (block.go).
//
// # An example
//
// Take a rule, with {"limits": {"free": 10}} as the base data, which is the data that no rule makes:
//
//	allow if {
//		input.key.plan == "free"
//		input.size < data.limits.free
//	}
//
// This is its function in the plan. Local 0 is the input, 1 the data, 2 the value of the function and 3 that of the rule:
//
//	block 1:  reset 3
//	          4 = member "key" of 0
//	          5 = member "plan" of 4
//	          5 equals "free"
//	          6 = member "size" of 0
//	          7 = 6
//	          block { block { 10 = member "limits" of 1; 11 = member "free" of 10; break 1 }; break 1 }
//	          12 = 11
//	          13 = call lt(7, 12)
//	          13 does not equal false
//	          assign true to 3, once
//	block 2:  3 is defined
//	          assign 3 to 2, once
//	block 3:  return 2
//
// And these are the seven closures of block 1:
//
//	locals[3] = nil
//	slots[0] is defined             the caller gives slot 0, input.key.plan,
//	slots[0] is the text "free"     without building an input document
//	slots[1] is defined             slot 1 is input.size
//	locals[13] = lt(slots[1], 10)   10 is known at load
//	locals[13] is not false
//	locals[3] = true
//
// Nothing of the other statements is left: what they assign is known at load, or nobody reads it.
//
// # What makes it fast
//
// The compiler removes work in these ways, none of which changes a value:
//   - inline.go takes lookups of base data out of their blocks.
//   - knowledge.go follows what is known about locals, from a statement to the next: constants, and what they lead to in the base data,
//     which never changes. What a block may have changed is forgotten after it. A value that no closure reads is not stored.
//   - constants.go builds collections of constants at load.
//   - slots.go numbers the parts of the input with constant names. They are slots, which the caller can give without the document.
//   - guard.go and index.go: a guard is a condition of a rule that compares a value with constants. An index finds the rules whose guard
//     can hold by the key of the value, which is the same for equal values.
//   - prefix.go and join.go: a join is a loop that compares a part of each member of a collection with a value from outside. It finds
//     the members in a table, by the key of the part.
//   - walk.go makes one loop of walk and the loop over its nodes, which leaves out nodes that do not matter.
//   - natives.go and patterns.go call frequent builtin functions without OPA's detours, and with patterns compiled at load.
//   - exit.go: rules that all have the same constant value stop at the first that holds, also inside loops.
//   - A function remembers its last value, which a with statement hides where it replaces something (call.go, with.go).
//
// Known values are shared by all goroutines. So a collection is only changed by the function that made it, and only while it makes it.
//
// # What differs from OPA's evaluator
//
// Values do not differ. But OPA's evaluator does not enter a rule whose conditions on the input cannot hold, stops at the first of several
// rules with one constant value, and evaluates only the key of a partial object that is asked for. A program meets the conflicts and
// failed functions that this skips. It also words conflicts more briefly. A caller that gets an error asks OPA's evaluator again.
//
// Some plans have another meaning than the rules. Plan and Compile refuse them, or Compile repairs them: misplanned, overlaid, unshift,
// innermost, dotBase and put tell why.
//
// # Reading the source
//
//  1. plan.go gets the plan, misplanned.go refuses some, and statements.go tells what statements have inside and change.
//  2. compile.go compiles functions, and block.go blocks and statements: operand.go, assign.go, condition.go, dot.go, collections.go,
//     loop.go, with.go and not.go have one kind of statement each.
//  3. program.go and run.go evaluate. call.go, dynamic.go and builtin.go call functions.
//  4. values.go and part.go have what the package needs to know about OPA's values.
//  5. The files of "What makes it fast", in the order of that list.
//  6. profile.go counts and times calls for those who ask.
package rego
