package oracle
import ("testing";"fmt";"os";"strings")
func TestZZ(t *testing.T){
	var seed uint64; fmt.Sscan(os.Getenv("ZZSEED"),&seed)
	p := newProduct(t); p.play(seed, 3000)
	m := NewModel("events", 8, p.log)
	_ = m
	want := strings.Split(os.Getenv("ZZIDS"), ",")
	scope := os.Getenv("ZZSCOPE")
	for _, rec := range m.log { e := rec.event
		if e.scope != scope { continue }
		for _, id := range want { if e.object == id {
			in := ""
			if e.passed != nil { in = fmt.Sprintf("PASSED %+v since=%+v del=%+v res=%+v", *e.passed, e.passed.pathSince, e.passed.trashedSince, e.passed.restoredSince) }
			w := int64(-1); if b := e.believed(); b != nil { w = *b - base.UnixMicro() }
			fmt.Printf("%d:%d %s %.30s t=%d path=%q name=%q parent=%q %s\n", rec.Partition, rec.Offset, strings.TrimPrefix(e.name,"workspace_storage_"), e.object, w, e.texts["path"], e.texts["name"], e.texts["parent_id"], in)
		}}
	}
	for _, id := range want { r := m.rows[joinKey(scope,id)]; if r != nil { fmt.Println(id, r.doc(), r.own.path) } }
}
