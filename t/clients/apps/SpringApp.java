// The same over examples/SpringRouting.java.

import java.util.List;
import org.springframework.core.SpringVersion;

class SpringApp extends App {
    final SpringRouting spring;

    SpringApp(SpringRouting spring) {
        super(null, spring.routing.reads);
        this.spring = spring;
    }

    public static void main(String[] args) throws Exception {
        String version = SpringVersion.getVersion();
        new SpringApp(new SpringRouting(pools(args), current::get))
            .serve(version == null ? "?" : version.replace(".RELEASE", ""));
    }

    @Override
    int get(Tokens tokens, int user) {
        return spring.read("SELECT version FROM profiles WHERE id = " + user);
    }

    // (queryForObject wants a row)
    @Override
    int patch(int user, int value) {
        List<Integer> rows = spring.writing.execute(status -> spring.jdbc.queryForList(
            "UPDATE profiles SET version = " + value + " WHERE id = " + user + " RETURNING version",
            Integer.class));
        return rows.isEmpty() ? 0 : rows.get(0);
    }
}
