package bolt

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
)

// TestSorter_Sorts sorts in runs of every size, down to one record in each.
func TestSorter_Sorts(t *testing.T) {
	for _, size := range []int{1, 50, 1000, sortMemory} {
		s := newSorter(t.TempDir())
		s.size = size
		var want []string
		for i := range 300 {
			key := fmt.Sprint(i)
			want = append(want, key+"="+key[:i%2])
		}
		for _, i := range rand.Perm(300) {
			key := []byte(fmt.Sprint(i))
			if err := s.add(key, key[:i%2]); err != nil {
				t.Fatal(err)
			}
		}
		if left, err := os.ReadDir(s.dir); err != nil || len(left) != 0 {
			t.Errorf("a kill would leave %v, %v", left, err)
		}
		var got []string
		if err := s.each(func(key, value []byte) error {
			got = append(got, string(key)+"="+string(value))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(want, func(a, b string) int {
			x, _, _ := bytes.Cut([]byte(a), []byte("="))
			y, _, _ := bytes.Cut([]byte(b), []byte("="))
			return bytes.Compare(x, y)
		})
		if !slices.Equal(got, want) {
			t.Errorf("runs of %d bytes: %v", size, got)
		}
	}
}
