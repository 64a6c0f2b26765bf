package envoy

import (
	"context"
	"os"
	"sync"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// binaryDir exists for the whole test run. TestMain sets it.
var binaryDir string

// binary returns the path of Tollkeeper, which it compiles for the first test that needs it.
var binary = sync.OnceValues(func() (string, error) {
	root, err := harness.ModuleRoot(".")
	if err != nil {
		return "", err
	}
	// Not the context of the first test, which ends before the others.
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
