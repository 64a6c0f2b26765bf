//go:build race

package check_test

// raceAllocations is what the race detector adds: with it, pools drop some of what they are given on purpose.
const raceAllocations = 12
