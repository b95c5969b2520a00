package gen

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// workspaceIDs are the scopes of every history. The first is the hot one; ws1 and ws10 share a prefix on purpose.
var workspaceIDs = append([]string{
	"4821930571648203911", "ws1", "ws10", "ws1/", "ws%2F1", "ws%", "_ws", "__offset", "..", ".", "ws 1", "123",
	"wörkspace-ünïcode", "工作区-七", "🙂🙃", "ws1?x=1&y=2#z", "a+b;c,d=e", `ws"quoted"\back`, "<ws>&amp;",
	strings.Repeat("long-", 51) + "x", "-", "ws:1", "48219305716482039112", "~user", "null",
}, plainIDs(0, 15)...)

func plainIDs(from, n int) (ids []string) {
	for i := from; i < from+n; i++ {
		ids = append(ids, fmt.Sprintf("48219305716482%05d", i*7919))
	}
	return ids
}

var dirs = []string{
	"/", "/reports", "/reports/2026", "/Ünï/čödé", "/a%2Fb", "/_hidden", "/100%", "/reports-old",
	"/a b/c&d",
}

// fileID makes a distinct id; most are shaped like the provider's nodes, some are made to confuse keys and addresses.
func fileID(serial int, rnd *rand.Rand) string {
	switch rnd.IntN(12) {
	case 0:
		return fmt.Sprintf("../%d", serial)
	case 1:
		return fmt.Sprintf("_%d", serial)
	case 2:
		return fmt.Sprintf("f/%d/%%2F", serial)
	case 3:
		return fmt.Sprintf("datei-%d-ß-文件", serial)
	case 4:
		id := fmt.Sprintf("%d-", serial)
		return id + strings.Repeat("L", 256-len(id))
	case 5:
		return fmt.Sprintf("%d%%", serial)
	}
	return node(serial, rnd)
}

const nodeLetters = "abcdefghijklmnopqrstuvwxyz234567"

func node(serial int, rnd *rand.Rand) string {
	b := fmt.Appendf(nil, "2%06d", serial)
	for len(b) < 29 {
		b = append(b, nodeLetters[rnd.IntN(len(nodeLetters))])
	}
	return string(b)
}

func fileName(serial int, rnd *rand.Rand) string {
	stem := pick(rnd, []string{"q3", "Bericht für März", "<b>bold</b> & more", `say "hi"`, "数据", "a/b", "x%20y", "plan"})
	return fmt.Sprintf("%s-%d%s", stem, serial, pick(rnd, []string{".pdf", ".txt", ".png", ""}))
}

func (g *generator) eventID() string {
	g.serial++
	switch g.rnd.IntN(20) {
	case 0:
		return fmt.Sprintf("_evt/%d", g.serial)
	case 1:
		return fmt.Sprintf("evt%%2F%d", g.serial)
	case 2:
		return fmt.Sprintf("événement-%d", g.serial)
	case 3:
		id := fmt.Sprintf("evt_%d_", g.serial)
		return id + strings.Repeat("e", 256-len(id))
	}
	return fmt.Sprintf("evt_%07d%s", g.serial, g.token(""))
}

// token is a word that no other call returns.
func (g *generator) token(prefix string) string {
	g.serial++
	return fmt.Sprintf("%s_%d_%08x", prefix, g.serial, g.rnd.Uint32())
}
