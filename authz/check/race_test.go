//go:build race

package check_test

// raceAllocations is what the race detector adds: pools forget on purpose what they were given.
const raceAllocations = 12
