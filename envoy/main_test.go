package envoy

import (
	"context"
	"os"
	"sync"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// binaryDir lives as long as the test run. TestMain sets it.
var binaryDir string

// binary compiles Tollkeeper when the first test asks for it, and returns its path.
var binary = sync.OnceValues(func() (string, error) {
	root, err := harness.ModuleRoot(".")
	if err != nil {
		return "", err
	}
	// Not the context of the test that happens to come first.
	return harness.BuildTollkeeper(context.Background(), root, binaryDir)
})

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "tollkeeper-bin-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	binaryDir = dir
	m.Run()
}
