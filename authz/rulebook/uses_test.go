package rulebook

import (
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
)

func TestUses_Missing(t *testing.T) {
	uses := Uses{
		"gone": &admin.PlanUse{Name: "gone", Accounts: 1, AccountIDs: []string{"acme"}, Keys: 4, KeyIDs: []string{"a", "b", "c"}, Tokens: true},
		"free": &admin.PlanUse{Name: "free", Accounts: 2, AccountIDs: []string{"x", "y"}},
	}
	want := `plan "gone" does not exist, and is used by 1 account (acme), 4 keys (a, b, c, …), tokens that name it`
	if got := strings.Join(uses.missing(map[string][]authz.Limit{"free": nil}), "\n"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := uses.missing(nil); got != nil {
		t.Errorf("policies without plans: %q", got)
	}
	if list := uses.List(); len(list) != 2 || list[0].Name != "free" || len(Uses(nil).List()) != 0 {
		t.Errorf("%+v", list)
	}
}
