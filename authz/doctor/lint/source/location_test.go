package source_test

import (
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

const text = `# a comment
a:
  b: 1
  "c.d": {e: true}
list: [x, y]
typed:
  "@type": type.googleapis.com/xds.type.v3.TypedStruct
  value: {fail_open: true}
block: |
  inner: 1
quoted: "{\n inner: 1}"
`

func TestLocation_HasLineAndPath(t *testing.T) {
	docs, err := source.Parse("x.yaml", []byte(text))
	if err != nil || len(docs) != 1 {
		t.Fatal(err, docs)
	}
	root := docs[0].Root()
	for _, c := range []struct {
		at     source.Location
		exists bool
		text   string
		line   int
		path   string
	}{
		{root.At("a.b"), true, "1", 3, "a.b"},
		{root.At("a", "b"), true, "1", 3, "a.b"},
		{root.At("a").Key("c.d").At("e"), true, "true", 4, `a["c.d"].e`},
		{root.At("a.missing.deeper"), false, "", 2, "a.missing.deeper"}, // the line of what would hold it
		{root.At("list").Index(1), true, "y", 5, "list[1]"},
		{root.At("typed.failOpen"), true, "true", 8, "typed.failOpen"}, // inside the TypedStruct, in protobuf's other style
		{source.Find(root, "fail_open"), true, "true", 8, "typed.value.fail_open"},
		{source.Embedded(root.At("block")).Root().At("inner"), true, "1", 10, "inner"},
		{source.Embedded(root.At("quoted")).Root().At("inner"), true, "1", 11, "inner"}, // its own lines are not lines of the file
	} {
		if c.at.Exists() != c.exists || c.at.Text() != c.text || c.at.Line() != c.line || c.at.Path() != c.path {
			t.Errorf("%s: exists %v, %q, line %d, path %s", c.path, c.at.Exists(), c.at.Text(), c.at.Line(), c.at.Path())
		}
	}
}
