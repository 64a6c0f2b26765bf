// Package evaluators compares what evaluates policies: OPA's evaluator and compiled programs. Rows lists the policies and requests,
// Measure takes the processor time and the allocations of whole decisions, and MeasureLoading what a loaded policy takes.
//
// Read row.go first, then measure.go. The other files make rows.
package evaluators
