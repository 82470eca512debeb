// Read your own writes with the PostgreSQL JDBC driver (42.2.6 or later) and
// HikariCP: write on the primary, read on replicas.
//
//   java -cp postgresql.jar:HikariCP.jar:slf4j-api.jar Jdbc.java \
//       "$PRIMARY" "$REPLICA1" "$REPLICA2"
//
// Copy Tokens, RywDataSource and Reads.  RywDataSource goes around the pool of the
// primary, whatever is above it (Spring, Hibernate, jOOQ): it needs no change there.
//
// COUNT, TOKEN and GUARD in the environment are explained in README.md.
// Run with OpenJDK 17, pgjdbc 42.5.5 and HikariCP 2.7.9.

import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.PrintWriter;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.net.URI;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Supplier;
import java.util.logging.Logger;
import javax.sql.DataSource;
import org.postgresql.PGConnection;

class Jdbc {
    public static void main(String[] args) throws SQLException {
        Tokens tokens = new Tokens(env("TOKEN", ""));
        boolean guard = !env("GUARD", "on").equals("off");
        List<DataSource> nodes = new ArrayList<>();
        for (String arg : args)
            nodes.add(pool(arg, nodes.isEmpty()));
        // In a web application the Supplier finds the Tokens of this request.
        DataSource primary = new RywDataSource(nodes.get(0), () -> guard ? tokens : new Tokens(""));
        Reads reads = new Reads(nodes);
        int times = Integer.parseInt(env("COUNT", "1"));
        int stale = 0;
        int lost = 0;

        for (int turn = 0; turn < times; turn++) {
            int written;
            try (Connection c = primary.getConnection();
                 ResultSet rs = c.createStatement().executeQuery(
                    "UPDATE profiles SET version = version + 1 WHERE id = 1 RETURNING version")) {
                rs.next();
                written = rs.getInt(1);
            }
            Integer seen = null;
            while (seen == null) {
                try {
                    seen = reads.read(tokens, turn,
                        "SELECT version FROM profiles WHERE id = 1");
                } catch (Reads.TokenLost e) {
                    lost++;
                    System.out.println("token lost: a write of yours is gone");
                }
            }
            if (seen < written)
                stale++;
        }
        System.out.printf("%d written, %d stale, %d lost, %d on the primary, %d fallbacks, token %s%n",
            times, stale, lost, reads.onPrimary, reads.fallbacks, tokens);
    }

    // From postgresql://user:password@host:port/database
    static DataSource pool(String uri, boolean primary) {
        URI u = URI.create(uri);
        String[] user = u.getUserInfo().split(":", 2);
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl("jdbc:postgresql://" + u.getHost() + ":" + u.getPort() + u.getPath());
        config.setUsername(user[0]);
        config.setPassword(user[1]);
        config.setMaximumPoolSize(2);
        config.setConnectionTimeout(800);  // so long a node that is down holds a read up
        config.setInitializationFailTimeout(primary ? 10000 : -1);
        return new HikariDataSource(config);
    }

    static String env(String name, String otherwise) {
        return System.getenv().getOrDefault(name, otherwise);
    }
}

// The tokens of one user: what the next request gets from a cookie.
class Tokens {
    private final List<String> set = new ArrayList<>();

    Tokens(String cookie) {
        for (String token : cookie.split("\\."))
            keep(token);
    }

    // Same timeline and tag: the greater LSN, as a number.  Else both.
    synchronized void keep(String token) {
        if (token == null || !token.matches("[0-9A-F]+-[0-9A-F]+-[0-9A-F]+"))
            return;
        String[] a = token.split("-");
        for (int i = 0; i < set.size(); i++) {
            String[] b = set.get(i).split("-");
            if (a[0].equals(b[0]) && a[2].equals(b[2])) {
                if (Long.parseUnsignedLong(a[1], 16) > Long.parseUnsignedLong(b[1], 16))
                    set.set(i, token);
                return;
            }
        }
        if (set.size() == 8)
            set.remove(0);  // the oldest
        set.add(token);
    }

    synchronized void replace(String token) {
        set.clear();
        keep(token);
    }

    public synchronized String toString() {
        return String.join(".", set);
    }
}

// Around the DataSource of the primary: what is committed on a connection is kept.
class RywDataSource implements DataSource {
    private final DataSource pool;
    private final Supplier<Tokens> current;

    RywDataSource(DataSource pool, Supplier<Tokens> current) {
        this.pool = pool;
        this.current = current;
    }

    public Connection getConnection() throws SQLException {
        return watched(pool.getConnection());
    }

    public Connection getConnection(String user, String password) throws SQLException {
        return watched(pool.getConnection(user, password));
    }

    // Looks after each commit, and before the connection goes back to its pool.  The
    // user before may have left a token there: only another one is new.
    private Connection watched(Connection c) throws SQLException {
        PGConnection pg = c.unwrap(PGConnection.class);
        Tokens tokens = current.get();
        String before = pg.getParameterStatus("ryw.token");
        return (Connection) Proxy.newProxyInstance(RywDataSource.class.getClassLoader(),
            new Class<?>[] {Connection.class}, (proxy, method, args) -> {
                String name = method.getName();
                try {
                    if (name.equals("close") && !c.isClosed())
                        capture(pg, before, tokens);
                    Object result = method.invoke(c, args);
                    if (name.equals("commit") || name.equals("setAutoCommit"))
                        capture(pg, before, tokens);
                    return result;
                } catch (InvocationTargetException e) {
                    throw e.getCause();
                }
            });
    }

    // No round trip: it came with the reply to the commit.
    private static void capture(PGConnection pg, String before, Tokens tokens) {
        String token = pg.getParameterStatus("ryw.token");
        if (token != null && !token.equals(before))
            tokens.keep(token);
    }

    public <T> T unwrap(Class<T> type) throws SQLException {
        return type.isInstance(this) ? type.cast(this) : pool.unwrap(type);
    }

    public boolean isWrapperFor(Class<?> type) throws SQLException {
        return type.isInstance(this) || pool.isWrapperFor(type);
    }

    public PrintWriter getLogWriter() throws SQLException { return pool.getLogWriter(); }
    public void setLogWriter(PrintWriter out) throws SQLException { pool.setLogWriter(out); }
    public int getLoginTimeout() throws SQLException { return pool.getLoginTimeout(); }
    public void setLoginTimeout(int seconds) throws SQLException { pool.setLoginTimeout(seconds); }
    public Logger getParentLogger() { return Logger.getGlobal(); }
}

// Reads behind the tokens; the first of the nodes is the primary.
class Reads {
    static final int WAIT = 300;       // milliseconds on one node
    static final int DEADLINE = 2000;  // for one read, over all nodes

    static class TokenLost extends RuntimeException { }

    final List<DataSource> nodes;
    int fallbacks;
    int onPrimary;

    Reads(List<DataSource> nodes) {
        this.nodes = nodes;
    }

    // What is tried on one node, with so many milliseconds to wait there.
    interface Attempt<T> {
        T on(int which, int wait) throws SQLException;
    }

    // The query has to end with its conditions: the guard is one more.
    int read(Tokens tokens, int turn, String sql) throws SQLException {
        return Integer.parseInt(tried(tokens, turn, (which, wait) ->
            first(which, sql + " AND ryw_require(?, ?)", tokens.toString(), wait)));
    }

    <T> T tried(Tokens tokens, int turn, Attempt<T> attempt) throws SQLException {
        long deadline = System.nanoTime() / 1000000 + DEADLINE;
        int last = nodes.size() - 1;
        int i = 0;
        boolean again = false;
        while (true) {
            // replicas first, each time another one; the primary at last
            int which = i == last ? 0 : 1 + (turn + i) % last;
            int left = (int) (deadline - System.nanoTime() / 1000000);
            if (left <= 0)
                throw new SQLException("no answer in time");
            try {
                T value = attempt.on(which, Math.min(left, WAIT));
                onPrimary += which == 0 ? 1 : 0;
                return value;
            } catch (SQLException e) {
                String code = e.getSQLState() == null ? "08000" : e.getSQLState();
                System.err.println(code + " on node " + which);
                if (code.equals("RY002")) {
                    tokens.replace(first(0, "SELECT ryw_current_token()::text"));
                    throw new TokenLost();
                }
                boolean once = code.equals("RY004") || code.equals("40001");
                if (code.equals("RY003") && i < last)
                    i = last;             // a node astray?  The primary knows
                else if (code.equals("RY003"))
                    tokens.replace("");   // of another cluster: dropped
                else if (once && !again)
                    again = true;
                else if (i == last)
                    throw e;
                else if (once)
                    i = last;
                else if (code.matches("RY00[156]|08...|57P.."))
                    i++;
                else
                    throw e;
                fallbacks++;
            }
        }
    }

    private String first(int which, String sql, Object... params) throws SQLException {
        try (Connection c = nodes.get(which).getConnection();
             PreparedStatement s = c.prepareStatement(sql)) {
            for (int p = 0; p < params.length; p++)
                s.setObject(p + 1, params[p]);
            try (ResultSet rs = s.executeQuery()) {
                rs.next();
                return rs.getString(1);
            }
        }
    }
}
