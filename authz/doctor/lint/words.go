package lint

import (
	"strconv"

	"github.com/agnivade/levenshtein"
)

func distance(a, b string) int { return levenshtein.ComputeDistance(a, b) }

// number is a whole number, 0 if the text is none.
func number(text string) int {
	n, _ := strconv.Atoi(text)
	return n
}
