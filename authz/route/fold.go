package route

import (
	"unicode"
	"unicode/utf8"
)

// appendFolded appends a text so that texts that differ only in the case of letters become equal, by Unicode's simple case
// folding.
func appendFolded(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case 'A' <= c && c <= 'Z':
			dst = append(dst, c+'a'-'A')
		case c < utf8.RuneSelf:
			dst = append(dst, c)
		default:
			for _, r := range s[i:] {
				dst = utf8.AppendRune(dst, foldRune(r))
			}
			return dst
		}
	}
	return dst
}

func folded(s string) string { return string(appendFolded(nil, s)) }

// foldRune returns one letter for all letters that differ only in case. Of the Turkish letters, a dotless i has the capital letter
// of i, and a capital I with a dot has the small one: servers that compare in one case take both for i.
func foldRune(r rune) rune {
	if r == '\u0131' || r == '\u0130' {
		return 'i'
	}
	first := r
	for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
		first = min(first, next)
	}
	if 'A' <= first && first <= 'Z' {
		first += 'a' - 'A'
	}
	return first
}

// isFolded reports whether folding leaves a text as it is, if that is cheap to see.
func isFolded(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}
