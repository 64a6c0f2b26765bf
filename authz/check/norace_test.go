//go:build !race

package check_test

const raceAllocations = 0
